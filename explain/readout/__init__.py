"""The read-out: a small learned head that turns the student's features into a saliency map without a query."""
