"""Sippy's `b2bua` with an option for the path of its RADIUS client, a setting that its command line lacks."""

from sippy import b2bua
from sippy.MyConfigParser import SUPPORTED_OPTIONS

SUPPORTED_OPTIONS["radiusclient"] = ("S", "path to the RADIUS client")
b2bua.main_func()
