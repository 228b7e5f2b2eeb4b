"""What can be done with a finished model: predict, look into it, count, time and export it."""
