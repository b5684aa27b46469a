"""Which way of running a compressed model suits this machine.

>>> from bigsmall import autopilot
>>> profile, notes = autopilot.profile_of_this_machine()      # measured once, then read from ~/.bigsmall/profile.json
>>> decision = autopilot.decide(profile, autopilot.read_model("model.bs"), autopilot.Wishes())
>>> print(*decision.lines, sep="\\n")
"""

from .decision import Decision, NoPlacementError, Wishes, decide
from .model import Fidelity, Model, read_model
from .placement import Placement
from .probing import probe, profile_of_this_machine
from .profile import Profile

__all__ = [
    "Decision",
    "Fidelity",
    "Model",
    "NoPlacementError",
    "Placement",
    "Profile",
    "Wishes",
    "decide",
    "probe",
    "profile_of_this_machine",
    "read_model",
]
