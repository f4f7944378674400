"""Namespaces that containers share: of each other, of a pod."""
