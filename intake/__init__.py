"""From a folder of pictures and annotations to a training: layouts, faults, mending, configs."""
