import com.google.gson.JsonObject;
import io.nats.client.Connection;
import io.nats.client.ConsumerContext;
import io.nats.client.IterableConsumer;
import io.nats.client.JetStreamApiException;
import io.nats.client.Message;
import io.nats.client.StreamContext;
import io.nats.client.api.ConsumerConfiguration;
import java.time.Duration;

/** Prints what customers write, until Ctrl-C. Argument: [DURABLE]. */
public final class Inbound {
    private static final int CONSUMER_NOT_FOUND = 10014;

    private Inbound() {}

    public static void main(String[] args) throws Exception {
        String durable = args.length > 0 ? args[0] : "java-inbound";
        try (Connection nc = Wazzup.connect();
                IterableConsumer messages = consumer(nc, durable).iterate()) {
            while (true) {
                Message message = messages.nextMessage(Duration.ofSeconds(10));
                if (message == null) {
                    continue;
                }
                JsonObject body = Wazzup.json(message).getAsJsonObject();
                String text = Wazzup.text(body, "text");
                System.out.println(Wazzup.text(body, "chatType") + " " + Wazzup.text(body, "chatId") + ": "
                        + (text.isEmpty() ? Wazzup.text(body, "content") : text));
                message.ack(); // after the work: what was not acknowledged comes again, with the same ce-id
            }
        }
    }

    /** The durable consumer remembers what was acknowledged. It is made once; later changes are yours. */
    private static ConsumerContext consumer(Connection nc, String durable) throws Exception {
        StreamContext stream = nc.getStreamContext("wazzup-" + Wazzup.ACCOUNT + "-records");
        try {
            return stream.getConsumerContext(durable);
        } catch (JetStreamApiException e) {
            if (e.getApiErrorCode() != CONSUMER_NOT_FOUND) {
                throw e;
            }
        }
        return stream.createOrUpdateConsumer(ConsumerConfiguration.builder()
                .durable(durable)
                .filterSubject("wazzup." + Wazzup.ACCOUNT + ".evt.message.in.>")
                .build());
    }
}
