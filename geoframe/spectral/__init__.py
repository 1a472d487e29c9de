"""Spectra: eigenbases of the Laplace-Beltrami operator and the signatures made from them."""

from geoframe.spectral.basis import Eigenbasis as Eigenbasis
from geoframe.spectral.basis import eigenbasis as eigenbasis
from geoframe.spectral.signatures import hks as hks
from geoframe.spectral.signatures import wks as wks
