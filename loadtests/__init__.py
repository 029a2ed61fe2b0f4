"""Load, faults and proof: traffic that anyone can send at any gateway, and the demo.

`rows` are the inputs, `tensors` writes them as requests, `schedule` sends them open loop, `users` with Locust,
`account` keeps the books, `faults` breaks things on purpose, `demo/` tells the whole story.
"""
