"""The control plane: plans, evidence, decisions, pools, quality, API.

How a rollout flows: `api` takes what the engineer asks and what gateways report -> `store` keeps it -> `observing`
turns it into facts -> `decision` decides, purely -> `controller` stores the new state with the instructions it owes ->
`carrying` carries them out with `pools` and `routing`.
"""
