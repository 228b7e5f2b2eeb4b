"""How all of the digit scenes are read: by this process, since the images are small."""

train_dataloader = dict(
    batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True)
)
val_dataloader = dict(
    batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False)
)
test_dataloader = val_dataloader
