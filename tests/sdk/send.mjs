// Signs a request as a provider's own SDK does, sends it, and prints the status and the body that came back.
//
// node send.mjs PROVIDER URL SECRET SIGNED_URL < BODY

import { buffer } from "node:stream/consumers";
import { sign } from "@octokit/webhooks-methods";
import { Webhook as StandardWebhook } from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as SvixWebhook } from "svix";
import twilio from "twilio";

const [provider, url, secret, signedUrl] = process.argv.slice(2);
const body = await buffer(process.stdin);
const text = body.toString();
const now = new Date();

const json = { "content-type": "application/json" };

const headers = {
  github: async () => ({
    ...json,
    "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    "x-github-event": "push",
    "x-hub-signature-256": await sign(secret, text),
  }),
  stripe: async () => ({
    ...json,
    "stripe-signature": Stripe.webhooks.generateTestHeaderString({ payload: text, secret }),
  }),
  "standard-webhooks": async () => ({
    ...json,
    "webhook-id": "msg_1",
    "webhook-timestamp": String(Math.floor(now / 1000)),
    "webhook-signature": new StandardWebhook(secret).sign("msg_1", now, text),
  }),
  svix: async () => ({
    ...json,
    "svix-id": "msg_2",
    "svix-timestamp": String(Math.floor(now / 1000)),
    "svix-signature": new SvixWebhook(secret).sign("msg_2", now, text),
  }),
  twilio: async () => ({
    "content-type": "application/x-www-form-urlencoded",
    "x-twilio-signature": twilio.getExpectedTwilioSignature(
      secret,
      signedUrl,
      Object.fromEntries(new URLSearchParams(text)),
    ),
  }),
};

const answer = await fetch(url, { method: "POST", body, headers: await headers[provider]() });
console.log(answer.status, await answer.text());
