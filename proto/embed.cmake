# Writes a file's bytes as the C array of proto/descriptor_set.h.
# usage: cmake -D INPUT=file -D OUTPUT=file.c -P embed.cmake
file(READ ${INPUT} bytes HEX)
string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE ${OUTPUT} "#include \"descriptor_set.h\"

const uint8_t rdrive_descriptor_set[] = {
${bytes}
};
const size_t rdrive_descriptor_set_size = sizeof(rdrive_descriptor_set);
")
