"""Compile the backbone, for images of one size or a few: each new size compiles anew at first."""

custom_hooks = [dict(type='mmdense.CompileBackboneHook', dynamic=False)]
