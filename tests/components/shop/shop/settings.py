"""Where the shop has its data is in the environment: PGSERVICE, SHOP_MEDIA, SHOP_SESSIONS; its secret in SHOP_SECRET."""
import os

SECRET_KEY = os.environ["SHOP_SECRET"]
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
INSTALLED_APPS = ["orders", "visits"]
MIDDLEWARE = []
DATABASES = {
    "default": {"ENGINE": "django.db.backends.postgresql", "OPTIONS": {"service": os.environ["PGSERVICE"]}},
    "sessions": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["SHOP_SESSIONS"],
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE", "init_command": "pragma journal_mode = wal"},
    },
}
DATABASE_ROUTERS = ["shop.router.Router"]
MEDIA_ROOT = os.environ["SHOP_MEDIA"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
