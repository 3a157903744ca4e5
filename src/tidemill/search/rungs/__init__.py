"""Trials that pause and go on: a short training for all, more of it for those that are ahead.

`tidemill.search.rungs.schedule.RungSchedule` decides, `tidemill.search.rungs.runner.RungRunner` has it done.
"""
