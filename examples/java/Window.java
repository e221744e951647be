import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import io.nats.client.Connection;

/** Opens the chat window of one customer for one of your users. Arguments: USER_ID USER_NAME CHAT_ID. */
public final class Window {
    private Window() {}

    public static void main(String[] args) throws Exception {
        if (args.length != 3) {
            System.err.println("usage: Window USER_ID USER_NAME CHAT_ID");
            System.exit(2);
        }
        JsonObject user = new JsonObject();
        user.addProperty("id", args[0]);
        user.addProperty("name", args[1]);
        JsonObject chat = new JsonObject();
        chat.addProperty("chatType", "whatsapp");
        chat.addProperty("chatId", args[2]);
        JsonArray filter = new JsonArray();
        filter.add(chat);
        JsonObject question = new JsonObject();
        question.add("user", user);
        question.addProperty("scope", "card");
        question.add("filter", filter);
        question.add("activeChat", chat);
        try (Connection nc = Wazzup.connect()) {
            // Whoever has it can use the window: keep it out of logs.
            System.out.println(Wazzup.ask(nc, "iframe.open", question).get("url").getAsString());
        }
    }
}
