"""The admission controller in plain Python: the rules that the Lua scripts hold, where they can be simulated."""
