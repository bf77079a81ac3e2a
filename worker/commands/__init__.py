"""The commands of `responses-worker`, one module each.

Their imports wait until a command runs, so that `--help` is there at once. Exit codes, the same everywhere:
0 done; 1 it failed, or the answer is an error; 2 the settings or the request are wrong; 3 no answer in time.
"""
