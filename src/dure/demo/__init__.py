"""Four real hospitals on one machine: their exports, their plans and one study between them."""
