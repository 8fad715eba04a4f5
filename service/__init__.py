"""HTTP in, masks out: the API, the jobs and the worker around the strategies of `models`."""
