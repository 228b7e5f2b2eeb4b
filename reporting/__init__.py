"""What people are shown of data and of finished models: pages of figures, curves and pictures."""
