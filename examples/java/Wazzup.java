import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import io.nats.client.Connection;
import io.nats.client.JetStreamApiException;
import io.nats.client.Message;
import io.nats.client.Nats;
import io.nats.client.Options;
import io.nats.client.Subscription;
import io.nats.client.impl.Headers;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;

/** What a program needs beside jnats in order to work with wazzup-relay. Copy it, and change it to your taste. */
final class Wazzup {
    static final String ACCOUNT = env("WAZZUP_ACCOUNT", "main");

    /** The states in which a command has ended; see docs/events.md. */
    static final Set<String> FINAL =
            Set.of("sent", "done", "rejected", "invalid", "duplicate", "expired", "cancelled", "dead");

    private Wazzup() {}

    /** A command is surely not stored. If temporary, the same command may be taken later. */
    static final class NotStored extends Exception {
        private static final long serialVersionUID = 1;
        final boolean temporary;

        NotStored(String message, boolean temporary, Exception cause) {
            super(message, cause);
            this.temporary = temporary;
        }
    }

    static String env(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? otherwise : value;
    }

    static Connection connect() throws IOException, InterruptedException {
        Options.Builder options =
                Options.builder().server(env("NATS_URL", "nats://127.0.0.1:4222")).maxReconnects(-1);
        if (System.getenv("NATS_USER") != null) {
            options.userInfo(System.getenv("NATS_USER"), env("NATS_PASSWORD", ""));
        }
        options.inboxPrefix(env("NATS_INBOX_PREFIX", "_INBOX")); // users may have inboxes of their own
        return Nats.connect(options.build());
    }

    /**
     * Returns the command's number in the stream: from then on it ends in exactly one final event. While the stream
     * is full, or it is not known whether the command was stored, it tries again for as long as {@code patience}
     * lasts, in the latter case only with an id, under which a repeat does no harm.
     */
    static long publish(Connection nc, String subject, JsonElement command, String replyTo, Duration patience)
            throws NotStored, IOException, InterruptedException {
        Headers headers = new Headers();
        if (replyTo != null) {
            headers.put("Wazzup-Reply-To", replyTo);
        }
        byte[] body = command.toString().getBytes(StandardCharsets.UTF_8);
        boolean repeatable = command.isJsonObject() && command.getAsJsonObject().has("id");
        long end = System.nanoTime() + patience.toNanos();
        for (long wait = 500; ; wait = Math.min(2 * wait, 30_000)) {
            long after = (long) (wait * ThreadLocalRandom.current().nextDouble(0.5, 1.5));
            boolean late = System.nanoTime() + after * 1_000_000 > end;
            try {
                return nc.jetStream().publish("wazzup." + ACCOUNT + ".cmd." + subject, headers, body).getSeqno();
            } catch (JetStreamApiException e) { // refused, such as "maximum bytes exceeded"
                if (late) {
                    throw new NotStored(e.getErrorDescription(), true, e);
                }
            } catch (IOException e) {
                if (String.valueOf(e.getMessage()).contains("503")) { // "no responders": jnats tells it by this alone
                    throw new NotStored(
                            "there is no " + subject + " of account " + ACCOUNT + ", or no worker has ever served it", false, e);
                }
                if (late || !repeatable) {
                    throw e;
                }
            }
            Thread.sleep(after);
        }
    }

    /**
     * Publishes a command and returns its final event, or null if there is none within {@code timeout}: then the
     * event will come, and a durable consumer of the events gets it.
     */
    static JsonObject outcome(Connection nc, String subject, JsonElement command, Duration patience, Duration timeout)
            throws NotStored, IOException, InterruptedException {
        String inbox = nc.createInbox();
        Subscription replies = nc.subscribe(inbox); // before the command is published
        try {
            System.out.println("stored as " + publish(nc, subject, command, inbox, patience));
            long end = System.nanoTime() + timeout.toNanos();
            for (long left = timeout.toNanos(); left > 0; left = end - System.nanoTime()) {
                Message reply = replies.nextMessage(Duration.ofNanos(left));
                if (reply == null) {
                    break;
                }
                JsonObject event = json(reply).getAsJsonObject();
                if (FINAL.contains(event.get("state").getAsString())) {
                    return event;
                }
            }
            return null;
        } finally {
            replies.unsubscribe();
        }
    }

    /** Sends a request and returns its answer. While the account changes hands, for a few seconds, nobody answers. */
    static JsonObject ask(Connection nc, String name, JsonObject question) throws IOException, InterruptedException {
        byte[] body = question.toString().getBytes(StandardCharsets.UTF_8);
        for (int tries = 0; tries < 20; tries++) {
            Message answer = nc.request("wazzup." + ACCOUNT + ".api." + name, body, Duration.ofSeconds(30));
            if (answer == null) {
                Thread.sleep(500);
                continue;
            }
            JsonObject value = json(answer).getAsJsonObject();
            if (answer.hasHeaders() && answer.getHeaders().containsKey("Nats-Service-Error-Code")) {
                JsonObject error = value.getAsJsonObject("error");
                throw new IOException(name + ": " + text(error, "code") + ": " + text(error, "description"));
            }
            return value;
        }
        throw new IOException(name + ": nobody answers");
    }

    static JsonElement json(Message message) {
        return JsonParser.parseString(new String(message.getData(), StandardCharsets.UTF_8));
    }

    /** The text of a field, or "" if there is none. */
    static String text(JsonObject object, String field) {
        JsonElement value = object == null ? null : object.get(field);
        return value == null || value.isJsonNull() ? "" : value.getAsString();
    }
}
