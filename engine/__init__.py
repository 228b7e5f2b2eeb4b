"""What stands between the models and mmengine: ops, configs, checkpoints, checks, the launch."""
