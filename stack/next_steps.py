"""What `fanline up` says when the whole system runs: where each part listens and how to post with curl."""

from collections.abc import Sequence

from stack.table import Node, Process

CURL = """\
API={url}
field() {{ sed -n 's/.*"'$1'":"\\([^"]*\\)".*/\\1/p'; }}
app=$(curl -s $API/api/v1/apps -d client_name=curl -d redirect_uris=urn:ietf:wg:oauth:2.0:oob \
-d scopes='read write follow')
id=$(echo "$app" | field client_id); secret=$(echo "$app" | field client_secret)
token=$(curl -s $API/oauth/token -d grant_type=client_credentials -d client_id=$id -d client_secret=$secret \
-d scope='read write follow' | field access_token)
me=$(curl -s $API/api/v1/accounts -H "Authorization: Bearer $token" -d username=alice -d email=alice@example.org \
-d password='a long password' -d agreement=true | field access_token)
curl -s $API/api/v1/statuses -H "Authorization: Bearer $me" -d status='Hello'
curl -s $API/api/v1/timelines/home -H "Authorization: Bearer $me"
"""


def curl_example(api_url: str) -> str:
    """Shell lines that register an application, sign up, post and read the home timeline."""
    return CURL.format(url=api_url)


def next_steps(nodes: Sequence[Node]) -> str:
    """The addresses of `nodes` and, when the API is among them, the curl example."""
    parts = [node for node in nodes if isinstance(node, Process)]
    width = max((len(part.name) for part in parts), default=0)
    lines = [f"{part.name:{width}}  {part.url}" for part in parts]
    api = [part.url for part in parts if part.kind == "api"]
    if api:
        lines += ["", f"The pipeline, live: {api[0]}/pipeline"]
        lines += ["", "To post:", "", *(f"  {line}" for line in curl_example(api[0]).splitlines())]
        lines += ["", "`make status` shows how it does, `make down` stops it."]
    return "\n".join(lines)
