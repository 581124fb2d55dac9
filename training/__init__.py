"""The γ-PO trainer, which consumes exported pairs with their weights and margins. It arrives in a later release."""
