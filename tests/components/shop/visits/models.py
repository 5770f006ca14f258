"""Who was there, and how often."""
from django.db import models


class Visitor(models.Model):
    name = models.CharField(max_length=100, unique=True)
    visits = models.IntegerField(default=0)


class Visit(models.Model):
    visitor = models.ForeignKey(Visitor, on_delete=models.CASCADE)
    at = models.DateTimeField(auto_now_add=True)
