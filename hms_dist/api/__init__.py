"""The public API: functions over the other rooms, one file per topic. `hms_dist/__init__.py` lists the public names."""
