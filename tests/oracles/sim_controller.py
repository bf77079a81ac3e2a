"""The controller that simulations drive: `Controller` learns the rate, `Admission` decides everything about a call."""

from oracles.controller.admission import Admission
from oracles.controller.pace import Pace as Controller

__all__ = ["Admission", "Controller"]

__all__ = ["Admission", "Controller"]
