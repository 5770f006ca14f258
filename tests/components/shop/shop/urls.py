"""The shop's pages."""
from django.urls import path

from shop import views

urlpatterns = [path("healthz", views.healthz), path("orders", views.order), path("invariants", views.invariants)]
