"""The node agent: volumes of this node as block devices (docs/agent.md)."""
