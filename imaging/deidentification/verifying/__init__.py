"""The check of written files; it shares no rule with the cleaning that wrote them."""
