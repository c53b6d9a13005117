"""Worker processes: functions of the package under limits in processor time and memory.

Knows how a process is started, fed in turns, killed and replaced. Does not know what is called: readers of answers and
verifiers name a function.
"""
