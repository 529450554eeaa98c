// A handler that verifies each request with a provider's own SDK, over the bytes as they arrived.
//
// node verify.mjs PROVIDER SECRET SIGNED_URL prints its port, then answers 200 and the body's SHA-256, or 400 and why.

import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { buffer } from "node:stream/consumers";
import { verify } from "@octokit/webhooks-methods";
import { Webhook as StandardWebhook } from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as SvixWebhook } from "svix";
import twilio from "twilio";

const [provider, secret, signedUrl] = process.argv.slice(2);

function must(right) {
  if (!right) throw new Error("the signature does not match");
}

const verifiers = {
  github: async (headers, text) => must(await verify(secret, text, headers["x-hub-signature-256"])),
  stripe: async (headers, text) => Stripe.webhooks.constructEvent(text, headers["stripe-signature"], secret),
  "standard-webhooks": async (headers, text) => new StandardWebhook(secret).verify(text, headers),
  svix: async (headers, text) => new SvixWebhook(secret).verify(text, headers),
  twilio: async (headers, text) =>
    must(
      twilio.validateRequest(
        secret,
        headers["x-twilio-signature"],
        signedUrl,
        Object.fromEntries(new URLSearchParams(text)),
      ),
    ),
};

const server = createServer(async (request, answer) => {
  try {
    const body = await buffer(request);
    await verifiers[provider](request.headers, body.toString());
    answer.end(createHash("sha256").update(body).digest("hex"));
  } catch (error) {
    answer.statusCode = 400;
    answer.end(`${error.name}: ${error.message}`);
  }
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit(0)).resume();
