"""Sippy's `b2bua` with the path of its RADIUS client as an option: it knows the setting, its command line does not."""

from sippy import b2bua
from sippy.MyConfigParser import SUPPORTED_OPTIONS

SUPPORTED_OPTIONS["radiusclient"] = ("S", "path to the RADIUS client")
b2bua.main_func()
