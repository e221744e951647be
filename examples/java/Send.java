import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import io.nats.client.Connection;
import java.time.Duration;
import java.util.UUID;

/**
 * Sends one message and waits for what becomes of it. Arguments: CHANNEL CHAT_ID TEXT [ID] [EXPIRE_AT]. Exit codes: 0
 * sent; 1 it will never be; 75 not stored, or still under way.
 */
public final class Send {
    private Send() {}

    public static void main(String[] args) throws Exception {
        if (args.length < 3) {
            System.err.println("usage: Send CHANNEL CHAT_ID TEXT [ID] [EXPIRE_AT]");
            System.exit(2);
        }
        JsonObject command = new JsonObject();
        // A program keeps the command, with its id, until it is stored.
        command.addProperty("id", args.length > 3 ? args[3] : UUID.randomUUID().toString());
        command.addProperty("chatType", "whatsapp");
        command.addProperty("chatId", args[1]);
        command.addProperty("text", args[2]);
        if (args.length > 4) {
            command.addProperty("expireAt", args[4]);
        }
        int exit;
        try (Connection nc = Wazzup.connect()) {
            Duration patience = Duration.ofSeconds(Long.parseLong(Wazzup.env("PATIENCE", "30")));
            exit = tell(Wazzup.outcome(nc, "send." + args[0], command, patience, Duration.ofMinutes(1)));
        } catch (Wazzup.NotStored e) {
            System.err.println("not stored: " + e.getMessage());
            exit = e.temporary ? 75 : 1;
        }
        System.exit(exit);
    }

    private static int tell(JsonObject event) {
        if (event == null) {
            System.out.println("still under way");
            return 75;
        }
        String state = Wazzup.text(event, "state");
        JsonObject error = event.getAsJsonObject("error");
        switch (state) {
            case "sent" -> {
                System.out.println("sent " + Wazzup.text(event, "messageId"));
                return 0;
            }
            case "duplicate" -> { // the id was used before, by a try whose answer was lost
                System.out.println("duplicate of one that is " + Wazzup.text(event.getAsJsonObject("original"), "state"));
                return 0;
            }
            case "invalid" -> {
                for (JsonElement each : error.getAsJsonArray("faults")) {
                    JsonObject fault = each.getAsJsonObject();
                    System.out.println("invalid " + Wazzup.text(fault, "field") + ": " + Wazzup.text(fault, "code")
                            + ": " + Wazzup.text(fault, "description"));
                }
                return 1;
            }
            default -> { // rejected, expired, cancelled, dead
                System.out.println((state + " " + Wazzup.text(error, "code") + " " + Wazzup.text(error, "description")).trim());
                return 1;
            }
        }
    }
}
