"""Simulated rollouts: the decision engine beside other rules, on the same make-believe traffic.

`traffic` says what gateways would count, `cells` which traffic each method meets, `ours` and `others` what decides,
`running` lets many rollouts pass on all cores, `report` and `plots` tell what came of them.

    python -m loadtests.deciding [--quick] [--only CELL]... [--json]
"""
