"""Where a run's log goes beside its own folder: one file and function a tracker, none of them required."""
