"""Curve: distributed block storage. The Python library: control plane and client."""
