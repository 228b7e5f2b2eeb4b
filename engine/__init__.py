"""How it trains and tests here: configs, building, checks, the launch, what a run adds."""
