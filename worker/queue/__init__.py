"""The places of messages, and the delivery that holds each."""
