"""The CSI driver: identity, controller and node services for Kubernetes (docs/csi.md)."""
