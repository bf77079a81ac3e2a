"""The demo: a worker, a gateway and a Redis that show the main job from end to end."""
