import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;

final class Keys {
    private Keys() {}

    static String key(String text) throws NoSuchAlgorithmException {
        if (text.matches("[A-Za-z0-9_-]{1,64}")) {
            return text;
        }
        byte[] sum = MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.UTF_8));
        return "~" + HexFormat.of().formatHex(sum, 0, 16);
    }
}
