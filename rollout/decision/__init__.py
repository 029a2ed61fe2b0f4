"""The decision core: facts and the time in, the next state and instructions out.

Pure: standard library only, no I/O, clock, randomness, logging or tasks. Whatever it decides can be replayed from the
facts it was given. `engine.handle` is the one door to a rollout's state.
"""
