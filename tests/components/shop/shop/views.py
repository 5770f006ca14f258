"""Orders with an attachment, and what is always true of them."""
import hashlib
import pathlib
import uuid

from django.conf import settings
from django.db import connections, transaction
from django.db.models import Count, F, Sum
from django.http import HttpResponse, JsonResponse
from django.views.decorators.http import require_POST

from orders.models import Account, Order
from visits.models import Visit, Visitor


def healthz(_request):
    for name in connections:
        connections[name].cursor().execute("select 1")
    return HttpResponse("ok\n")


@require_POST
def order(request):
    """Moves a coin from one account to another. The attachment is on disk before the order that names it, and never changed."""
    content = request.FILES["attachment"].read()
    name = f"orders/{uuid.uuid4()}.bin"
    place = pathlib.Path(settings.MEDIA_ROOT) / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    source, target = int(request.POST["source"]), int(request.POST["target"])
    with transaction.atomic():
        # In one order, so that two of them never wait for each other.
        for account in sorted({source, target}):
            change = int(account == target) - int(account == source)
            Account.objects.filter(pk=account).update(balance=F("balance") + change)
        Order.objects.create(source=source, target=target, attachment=name, sha256=hashlib.sha256(content).hexdigest())
    with transaction.atomic(using="sessions"):
        visitor, _ = Visitor.objects.get_or_create(name=f"customer {source}")
        Visitor.objects.filter(pk=visitor.pk).update(visits=F("visits") + 1)
        Visit.objects.create(visitor=visitor)
    return HttpResponse("taken\n", status=201)


def wrong_attachment(one):
    try:
        content = (pathlib.Path(settings.MEDIA_ROOT) / one.attachment).read_bytes()
    except OSError:
        return True
    return hashlib.sha256(content).hexdigest() != one.sha256


def wrongs():
    """What is not as it has to be: nothing, in any state that was ever committed."""
    with transaction.atomic():
        # Of one moment: an order that is committed between two statements is in both, or in none.
        connections["default"].cursor().execute("set transaction isolation level repeatable read")
        orders = list(Order.objects.all())
        balances = {account.pk: account.balance - 100 for account in Account.objects.all()}
    for one in orders:
        balances[one.source] += 1
        balances[one.target] -= 1
    yield from (f"account {number} is wrong by {by}" for number, by in balances.items() if by)
    if not balances or sum(balances.values()):
        yield "money was made or lost"
    yield from (f"the attachment of order {one.pk} is missing or wrong" for one in orders if wrong_attachment(one))
    with transaction.atomic(using="sessions"):
        counted = Visitor.objects.annotate(found=Count("visit"))
        yield from (f"{one.name} has {one.visits} visits, and {one.found} are there" for one in counted if one.visits != one.found)


def invariants(request):
    """`ok`, or what is wrong; with ?counts as JSON how much there is."""
    if "counts" in request.GET:
        visits = Visitor.objects.aggregate(sum=Sum("visits"))["sum"] or 0
        return JsonResponse({"orders": Order.objects.count(), "visits": visits})
    return HttpResponse("\n".join(wrongs()) or "ok")
