"""Worker processes under limits in processor time and memory, and turns for those on whose behalf work is done.

Knows how a process is started, fed in turns, killed and replaced, and which asker goes next: to a process, to a thread,
or to a round of the event loop. Does not know what is called: readers of answers and verifiers name a function.
"""
