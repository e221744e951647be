import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import io.nats.client.Connection;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;

/** Makes contacts known to Wazzup, and lists all that it knows. Argument: [FILE]. */
public final class Contacts {
    private Contacts() {}

    public static void main(String[] args) throws Exception {
        Path file = Path.of(args.length > 0 ? args[0] : "../contacts.json");
        JsonArray contacts = JsonParser.parseString(Files.readString(file)).getAsJsonArray();
        String state;
        try (Connection nc = Wazzup.connect()) {
            // No id: an id such as contact-17 would make every later update a duplicate.
            JsonObject event = Wazzup.outcome(
                    nc, "sync.contacts.upsert", contacts, Duration.ofSeconds(30), Duration.ofMinutes(1));
            state = event == null ? "still under way" : Wazzup.text(event, "state");
            System.out.println(contacts.size() + " contacts: " + state);
            if (event != null && event.has("items")) {
                for (JsonElement each : event.getAsJsonArray("items")) {
                    JsonObject item = each.getAsJsonObject();
                    System.out.println("  " + Wazzup.text(item, "id") + ": " + Wazzup.text(item.getAsJsonObject("error"), "code"));
                }
            }
            if (state.equals("invalid")) {
                for (JsonElement each : event.getAsJsonObject("error").getAsJsonArray("faults")) {
                    JsonObject fault = each.getAsJsonObject();
                    System.out.println("  " + Wazzup.text(fault, "field") + ": " + Wazzup.text(fault, "code"));
                }
            }

            int known = 0;
            for (JsonElement offset = JsonParser.parseString("0"); offset != null; ) {
                JsonObject question = new JsonObject();
                question.add("offset", offset);
                JsonObject page = Wazzup.ask(nc, "contacts.list", question);
                known += page.getAsJsonArray("items").size();
                offset = page.get("next");
            }
            System.out.println("Wazzup knows " + known);
        }
        System.exit(state.equals("done") ? 0 : 1);
    }
}
