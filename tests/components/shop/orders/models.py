"""Accounts, and orders that move a coin between them."""
from django.db import models


class Account(models.Model):
    balance = models.IntegerField(default=100)


class Order(models.Model):
    source = models.IntegerField()
    target = models.IntegerField()
    attachment = models.CharField(max_length=100, unique=True)
    sha256 = models.CharField(max_length=64)
    created = models.DateTimeField(auto_now_add=True)
