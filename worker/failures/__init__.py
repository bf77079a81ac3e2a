"""Each failure class once, and how an error of the gateway is told to be one of them."""
