import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * Uploads a file many times with Java's HttpClient as it is, which asks for an upgrade to h2c on http://:
 * java Upload.java CREATION-URL FILE TIMES AT-ONCE. Each upload is created, sent in two PATCHes, the first with a
 * Content-Length and the second chunked, and printed as one line, its URL.
 */
public class Upload {
    private final HttpClient client;
    private final URI creation;
    private final byte[] source;

    private Upload(HttpClient client, URI creation, byte[] source) {
        this.client = client;
        this.creation = creation;
        this.source = source;
    }

    public static void main(String[] args) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(Integer.parseInt(args[3]));
        HttpClient client = HttpClient.newHttpClient();
        Upload upload = new Upload(client, URI.create(args[0]), Files.readAllBytes(Path.of(args[1])));
        List<Callable<URI>> uploads = new ArrayList<>();
        for (int n = 0; n < Integer.parseInt(args[2]); n++) {
            uploads.add(upload::once);
        }
        for (Future<URI> one : pool.invokeAll(uploads)) {
            System.out.println(one.get());
        }
        pool.shutdown();
        System.exit(0); // HttpClient's own threads are not waited for
    }

    private URI once() throws Exception {
        HttpRequest create = request(creation).header("Upload-Length", Integer.toString(source.length))
                .POST(BodyPublishers.noBody()).build();
        HttpResponse<String> created = client.send(create, BodyHandlers.ofString());
        check(created, 201);
        URI url = creation.resolve(created.headers().firstValue("Location").orElseThrow());
        int half = source.length / 2;
        append(url, 0, BodyPublishers.ofByteArray(source, 0, half), half);
        byte[] rest = Arrays.copyOfRange(source, half, source.length);
        append(url, half, BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(rest)), source.length);
        return url;
    }

    private void append(URI url, int offset, HttpRequest.BodyPublisher body, int reached) throws Exception {
        HttpRequest patch = request(url).header("Upload-Offset", Integer.toString(offset))
                .header("Content-Type", "application/offset+octet-stream").method("PATCH", body).build();
        HttpResponse<String> answer = client.send(patch, BodyHandlers.ofString());
        check(answer, 204);
        String offsetNow = answer.headers().firstValue("Upload-Offset").orElse("missing");
        if (!offsetNow.equals(Integer.toString(reached))) {
            throw new IllegalStateException("Upload-Offset is " + offsetNow + ", not " + reached);
        }
    }

    private static HttpRequest.Builder request(URI url) {
        return HttpRequest.newBuilder(url).header("Tus-Resumable", "1.0.0");
    }

    private static void check(HttpResponse<String> answer, int status) {
        if (answer.statusCode() != status) {
            throw new IllegalStateException(answer.statusCode() + " " + answer.body());
        }
    }
}
