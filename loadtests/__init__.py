"""Load, faults and proof: traffic that anyone can send at any gateway, the demo, and the benchmarks.

`rows` are the inputs, `tensors` writes them as requests, `schedule` sends them open loop, `users` with Locust,
`account` keeps the books, `faults` breaks things on purpose, `ports` finds free addresses. `demo/` tells the whole
story; `bench/` measures us beside `peers/`.
"""
