"""Where the bytes lie. The modules here are interchangeable behind ports.Storage."""
