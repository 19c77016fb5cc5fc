# A stranger's client, from docs/protocol.md alone: follows one job and prints each seq, then "complete STATE".
import asyncio, json, sys
import websockets


async def main(url, job):
    async with websockets.connect(url, subprotocols=["jobs.v1.json"]) as socket:
        await socket.send(json.dumps({"type": "hello"}))
        await socket.send(json.dumps({"type": "subscribe", "job": job, "cursor": "0-0"}))
        async for frame in socket:
            messages = json.loads(frame)
            for message in messages if isinstance(messages, list) else [messages]:
                if message["type"] == "live":
                    print("live", flush=True)
                if message["type"] == "events":
                    for item in message["items"]:
                        print(item["seq"], flush=True)
                if message["type"] == "complete":
                    print("complete", message["state"], flush=True)
                    return


asyncio.run(main(*sys.argv[1:]))
